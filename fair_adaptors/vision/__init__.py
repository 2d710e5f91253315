"""What sees pictures: classifiers, encoders, faces. Shared by evaluation and training; knows neither."""
